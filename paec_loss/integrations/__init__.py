"""The methods of this library inside other trainers. Each needs an extra of the package."""
