r"""Units after a number: listed words and symbols, and nothing else.

A unit may be left out of an answer, so a rule such as "any \text{...} after a number is a unit" would let a response
hedge: 5\text{ or 6}, 5\text{ minus 3}, 5\text{ dozen}. Here a unit consists of the words below:

    unit      factor (("/" | "per" | "*" | "\cdot" | "-") factor)*
    factor    ("square" | "cubic" | ...)? word (^2 | ^3 | "squared" | "cubed")?
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MEASURES = """
    meter m metre | centimeter cm centimetre | millimeter mm millimetre | kilometer km kilometre
    decimeter dm decimetre | micrometer | nanometer nm
    inch in | foot ft | yard yd | mile mi | furlong | fathom
    gram g gramme | kilogram kg | milligram mg | ton | tonne | pound lb | ounce oz
    liter L l litre | milliliter mL ml millilitre | gallon gal | quart qt | pint pt | cup | teaspoon tsp
    tablespoon tbsp | acre | hectare ha
    second s sec | minute min | hour h hr | day | week wk | month | year yr | decade | century
    millisecond ms
    radian rad | revolution rev | rotation
    newton N | joule J | kilojoule kJ | watt W | milliwatt mW | kilowatt kW | megawatt MW | volt V | ampere amp A | ohm
    hertz Hz | kilohertz kHz | megahertz MHz | calorie cal | kilocalorie kcal | pascal Pa | kilopascal kPa
    mole mol | atm | bit | byte | kilobyte KB | megabyte MB | gigabyte GB
    euro | cent | rupee | yen | yuan | peso | ruble | franc | shilling | penny
    knot | unit
"""
"""Measures, `|` or a line's end between them: the name, then its other spellings."""

_THINGS = """
    person people child man woman student teacher boy girl kid adult member player worker guest friend passenger voter
    customer employee soldier participant visitor candidate juror contestant runner swimmer
    way arrangement outcome possibility solution root zero intercept combination permutation subset element triple
    integer number digit divisor factor multiple prime term sequence function polynomial word letter ordering
    point line edge face side vertex corner diagonal triangle rectangle circle square cube region segment tile angle
    apple orange banana pear peach plum grape cherry strawberry blueberry lemon mango melon pumpkin tomato potato carrot
    onion egg cookie cake cupcake pie slice pizza sandwich muffin donut candy chocolate brownie loaf bagel burger taco
    bottle can jar box bag basket carton packet package container crate bucket tank glass bowl plate spoon fork
    book page chapter magazine newspaper pencil pen crayon marker eraser notebook sticker stamp card ticket poster
    photo picture letter question problem test exam lesson class course homework assignment
    coin bill nickel dime token marble ball balloon bead button block toy doll puzzle game piece chip
    car truck bus train bike bicycle plane boat ship wheel tire seat
    dog cat bird fish cow horse sheep goat pig chicken duck goose hen rabbit mouse lion monkey ant bee spider animal pet
    tree flower plant rose tulip seed leaf branch bush petal
    path house room door window floor wall table chair desk bed lamp shelf
    shirt sock shoe hat dress coat sweater glove jacket
    lap trip step stair turn move round match goal race team vote
    job shift meeting task order item product sale
    stone rock brick log stick rope ribbon string wire
    phone computer laptop television movie song video
    meal breakfast lunch dinner snack drink
    gift present prize medal trophy
    stop station street block city town school
"""
"""Things that are counted, in the singular."""
_PLURAL_ONLY = set(
    "square cube triple root zero prime multiple factor divisor digit integer number point order".split()
)
"""5 squares are 5; 5 square may be 25."""

_IRREGULAR = {
    "feet": "foot",
    "inches": "inch",
    "hertz": "hertz",
    "people": "person",
    "persons": "person",
    "children": "child",
    "men": "man",
    "women": "woman",
    "vertices": "vertex",
    "loaves": "loaf",
    "leaves": "leaf",
    "shelves": "shelf",
    "geese": "goose",
    "mice": "mouse",
    "pence": "penny",
    "pennies": "penny",
    "sheep": "sheep",
    "fish": "fish",
}
_SYMBOLS = {
    "%": "%",
    "percent": "%",
    "percentage": "%",
    "°": "°",
    "deg": "°",
    "degree": "°",
    "degrees": "°",
    "¤": "¤",
    "dollar": "¤",
    "dollars": "¤",
    "USD": "¤",
    "£": "pound",
    "€": "euro",
    "¥": "¥",
}
_POWERS_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_BEHIND = {"^2": 2, "^3": 3, "squared": 2, "cubed": 3}
_JOINTS = {"/": -1, "per": -1, "*": 1, "-": 1}
_ABBREVIATIONS = {
    "mph": ("mile", "/", "hour"),
    "kmh": ("kilometer", "/", "hour"),
    "kph": ("kilometer", "/", "hour"),
    "sqft": ("square", "foot"),
}
_CURRENCIES_OF = {"¥": ("yen", "yuan")}
"""A symbol of two currencies equals either; yen and yuan differ."""
LONGEST = 60
"""Characters; a longer text is not a unit."""


class Unit(NamedTuple):
    """A unit in its normal form."""

    name: str
    """Equal for two spellings of one unit: cm^{2} and square centimeters are both centimeter^{2}."""
    measure: bool
    """Whether it is a measure or a symbol, not a thing that is counted."""


def _table() -> dict[str, tuple[str, bool]]:
    """Word -> (name, whether it is a measure). Words of up to three letters are spelled as here, case included."""
    names: dict[str, tuple[str, bool]] = {}
    for thing in _THINGS.split():
        names[_plural(thing)] = thing, False
        if thing not in _PLURAL_ONLY:
            names[thing] = thing, False
    for group in _MEASURES.replace("\n", "|").split("|"):
        for spelling in group.split():
            names[spelling] = names[_plural(spelling)] = group.split()[0], True
    for plural, singular in _IRREGULAR.items():
        names[plural] = names.get(singular, (singular, False))
    return names


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


_NAMES = _table()
_POWER_IN_BRACES = re.compile(r"\^ ?\{ ?([23]) ?\}")
_MARKUP = re.compile(r"\\text\{|[{}]|\\[ ,;:!]")
_PIECE = re.compile(r"\^[23]|[A-Za-z]+\.?|[/*%°¤£€¥-]| ")


def parse(text: str) -> Unit | None:
    r"""The unit that `text` is, in the notation of `recipe.grading.strict`: \text{miles per hour}, cm^{2}; else None.

    Nothing may be left over: "cm or 6" is not a unit.
    """
    if len(text) > LONGEST:
        return None
    text = " ".join(_MARKUP.sub(" ", _POWER_IN_BRACES.sub(r"^\1", text)).split())
    pieces = _PIECE.findall(text)
    if "".join(pieces) != text:
        return None
    words = [_ABBREVIATIONS.get(piece, (piece,)) for piece in (piece.rstrip(".") for piece in pieces if piece != " ")]
    pieces = [piece for part in words for piece in part]
    powers: dict[str, int] = {}
    sign, measure = 1, True
    while True:
        factor = _factor(pieces)
        if factor is None:
            return None
        name, power, is_measure, pieces = factor
        powers[name] = powers.get(name, 0) + sign * power
        measure = measure and is_measure
        if not pieces:
            return Unit(_written(powers), measure)
        if pieces[0] not in _JOINTS:
            return None
        sign, pieces = _JOINTS[pieces[0]], pieces[1:]


def same(a: Unit, b: Unit) -> bool:
    """Whether two units are the same; ¥ is the same as yen and as yuan."""
    return a.name == b.name or not _readings(a.name).isdisjoint(_readings(b.name))


def _readings(name: str) -> set[str]:
    """The names that a name with a symbol of two currencies may stand for: yen/hour and yuan/hour for ¥/hour."""
    for symbol, currencies in _CURRENCIES_OF.items():
        if symbol in name:
            return {name.replace(symbol, currency) for currency in currencies}
    return {name}


def _factor(pieces: list[str]) -> tuple[str, int, bool, list[str]] | None:
    """The factor at the start: its name, its power, whether it is a measure, and the pieces after it."""
    power = _POWERS_BEFORE.get(pieces[0].casefold(), 1) if len(pieces) > 1 else 1
    if power > 1 and _word(pieces[1]):
        pieces = pieces[1:]
    else:
        power = 1
    found = _word(pieces[0]) if pieces else None
    if found is None:
        return None
    name, measure = found
    if len(pieces) > 1 and pieces[1] in _POWERS_BEHIND and power == 1 and measure:
        return name, _POWERS_BEHIND[pieces[1]], measure, pieces[2:]
    return name, power, measure, pieces[1:]


def _word(piece: str) -> tuple[str, bool] | None:
    """The name of a word, and whether it is a measure; short ones such as mW and MW are distinguished by case."""
    if piece in _SYMBOLS:
        return _SYMBOLS[piece], True
    return _NAMES.get(piece) or (_NAMES.get(piece.casefold()) if len(piece) > 3 else None)


def _written(powers: dict[str, int]) -> str:
    """meter/second^{2} of {"meter": 1, "second": -2}."""

    def product(sign: int) -> str:
        factors = sorted((name, power * sign) for name, power in powers.items() if power * sign > 0)
        return "*".join(name + (f"^{{{power}}}" if power > 1 else "") for name, power in factors)

    top, bottom = product(1), product(-1)
    return f"{top}/{bottom}" if bottom else top
