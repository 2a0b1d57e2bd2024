"use strict";
// Elements, and numbers as text. Text of models and runs enters a page by textContent only.

/** A new element: attributes, then children; a string becomes text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A number with four significant digits. */
function shown(value) {
  if (value === null || value === undefined) return "–";
  return digits(value).replaceAll("-", "−");
}

function digits(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace("e", " e");
  return value.toFixed(Math.max(0, 3 - Math.floor(Math.log10(size)) - (size < 1 ? 1 : 0)));
}
