"""Passwords that are guessed first, and so are none: the most common ones, in the guises people give them."""

from __future__ import annotations

import re
from typing import Final

from gridx.errors import InvalidField

MAX_BYTES: Final = 1024
_GUISES: Final = str.maketrans("013457@$!", "oieastasi")
_ENDS: Final = re.compile(r"\A[\W\d_]+|[\W\d_]+\Z")

# Each is refused as it is, with digits and signs before and after it, and with digits in place of letters.
WORDS: Final = frozenset(
    """
    1234qwer 1qazxsw2 a1s2d3f4 abc abc123abc abcd abcde access admin administrator alexander amanda andrea
    andrew anthony arsenal asdf asdfasdf asdfgh asdfghjk asdfghjkl ashley austin azerty babygirl bailey
    barbara barcelona baseball basketball batman beautiful benjamin bigdaddy blackberry blessed blink
    bonjour bonnie brandon brandy buster butterfly cameron carolina caroline casper changeit changeme
    charles charlie charlotte cheese chelsea chester chicago chicken chocolate christian christine
    christopher coffee compaq computer cookie correcthorsebatterystaple corvette cowboy cowboys dallas
    daniel danielle death default diamond dolphin dragon eagles eclipse einstein elizabeth eminem enter
    falcon family ferrari fishing flower football forever freedom friend friends fuckoff fuckyou gabriel
    galaxy gandalf garfield gateway george ginger godzilla golden golfer google grid gridx guest guitar
    hammer hannah happy harley heather hello helloworld hockey hunter iceman iloveu iloveyou iloveyou2
    internet isabella iwantu jackass jackson jasmine jennifer jessica jesus jonathan jordan joseph joshua
    junior justin karate killer kimberly kitten lakers letmein letmeinnow liberty liverpool login london
    lovely loveme lover lovers loveyou madison maggie manchester manutd marina marlboro martin master
    matrix matthew maverick maxwell melissa mercedes merlin michael michelle mickey midnight monkey
    monster morgan mother mountain mustang mynoob naruto natasha nathan newyork nicholas nicole nintendo
    nothing numberone oliver orange panther pass passion passw passwd password passwort patricia patrick
    peanut pepper phoenix playboy pokemon porsche prince princess private purple qaz qazwsx qazwsxedc qqww
    qwe qwer qwert qwerty qwertyui qwertyuiop qwertz rachel raiders rainbow ranger rangers rebecca richard
    robert rockstar rockyou root samantha samsung sandra scooter scorpion secret secure security shadow
    shannon shithead silver skywalker slipknot snoopy snowball soccer sophie spider spiderman starwars
    steelers stephanie steven stupid summer sunflower sunshine superman superstar sweetheart sweety
    swordfish taylor teacher temp tennis tequila test tester testing testtest thomas thunder tigger
    tinkerbell toyota tristan trustno trustnoone tucker user vanessa victoria viking volcom warcraft
    warrior webmaster welcome whatever whocares william willow winner winter wizard wordpass xxxxxx yamaha
    yankees yellow zaq12wsx zaqwsx zaqxsw zxcvbn zxcvbnm
    """.split()  # noqa: SIM905 - a page of words, not of quotation marks
)
RUNS: Final = (
    "01234567890123456789",
    "98765432109876543210",
    "abcdefghijklmnopqrstuvwxyz",
    "zyxwvutsrqponmlkjihgfedcba",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "a1b2c3d4e5f6g7h8i9j0",
    "147258369",
    "159753456852",
    "789456123",
)


def check(username: str, password: str) -> None:
    """Refuse a new password that would be guessed soon.

    Raises:
        InvalidField: it is one of the most common ones, the user's name, one character or a short text again
            and again, a run of keys, or too long.
    """
    if len(password.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidField(
            f"password: has more than {MAX_BYTES:,} bytes.", "Choose a shorter one.", field="password"
        )
    if why := weakness(username, password):
        raise InvalidField(
            f"password: {why}, which is tried first by whoever guesses.",
            "Three or four words that have nothing to do with each other make a good one.",
            field="password",
        )


def weakness(username: str, password: str) -> str:
    """Why a password is guessed soon, in words; "" when nothing is known against it."""
    plain = password.casefold()
    name = username.casefold()
    if _without(plain, name) or _without(plain, name[::-1]):
        return "is the user's name"
    if any(plain == plain[:size] * (len(plain) // size) for size in range(1, 5) if len(plain) % size == 0):
        return "repeats itself"
    if any(plain in run for run in RUNS):
        return "is a run of keys"
    bare = _ENDS.sub("", plain)
    disguised = (bare.translate(_GUISES), _ENDS.sub("", plain.translate(_GUISES)))
    for guise in (plain, bare, plain.translate(_GUISES), *disguised):
        for word in (guise, guise[: len(guise) // 2] if guise == guise[: len(guise) // 2] * 2 else ""):
            if word in WORDS:
                return "is one of the most common ones"
    return "is a number of few digits" if plain.isdigit() and len(plain) < 10 else ""


def _without(plain: str, name: str) -> bool:
    """Whether nothing but digits and signs is left of a password without a name."""
    return bool(name) and name in plain and not re.search(r"[^\W\d_]", plain.replace(name, ""))
