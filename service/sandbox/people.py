"""Invented companies and people, as a person or a web form would enter them. No name is anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

_FIRST = (
    "Brindle", "Quill", "Halvor", "Tarn", "Ember", "Wicker", "Osier", "Larch", "Pebble", "Corvin", "Maple",
    "Sable", "Thistle", "Otter", "Cinder", "Fallow", "Juniper", "Kestrel", "Marrow", "Nettle",
)  # fmt: skip
_SECOND = (
    "moor", "feather", "sen", "wick", "field", "haven", "ford", "stead", "ridge", "brook", "holt", "mere",
)  # fmt: skip
_TRADE = (
    "Joinery", "Media", "Robotics", "Logistics", "Software", "Foods", "Clinics", "Instruments", "Textiles",
    "Analytics", "Ceramics", "Freight", "Optics", "Seeds", "Tooling", "Bicycles",
)  # fmt: skip
_GIVEN = (
    "Priya", "Marisol", "Anders", "Ines", "Tobias", "Leilani", "Jonas", "Aiko", "Samir", "Greta", "Noor",
)  # fmt: skip
_FAMILY = (
    "Osterhaug", "Vennfield", "Quillan", "Tarnow", "Brackenridge", "Solvei", "Maruyama-Holt", "Okonjo-Lind",
)  # fmt: skip
_TITLE = ("Head of Procurement", "Founder", "Operations Manager", "Engineer", "Finance Director", "Assistant")
_DESCRIPTION = (
    "",
    "Inbound demo request.",
    "Met at a trade fair.",
    "Asked about on-prem deployment.",
    "Wants a call next week.",
)

_SHARE_WITHOUT_URL = 1 / 3
_SHARE_WITHOUT_TITLE = 0.2


def invented_lead(random: Random) -> dict[str, Any]:
    """The body of a `POST /lead/`: a company with one or two contacts, a third without a web address."""
    company = f"{random.choice(_FIRST)}{random.choice(_SECOND)} {random.choice(_TRADE)}"
    domain = f"{company.lower().replace(' ', '-')}.example"
    lead: dict[str, Any] = {
        "name": company,
        "description": random.choice(_DESCRIPTION),
        "contacts": [_invented_contact(random, domain) for _ in range(random.randint(1, 2))],
    }
    if random.random() >= _SHARE_WITHOUT_URL:
        lead["url"] = f"https://{domain}"
    return lead


def _invented_contact(random: Random, domain: str) -> dict[str, Any]:
    given, family = random.choice(_GIVEN), random.choice(_FAMILY)
    contact: dict[str, Any] = {
        "name": f"{given} {family}",
        "emails": [{"email": f"{given.lower()}.{family.lower()}@{domain}", "type": "office"}],
    }
    if random.random() >= _SHARE_WITHOUT_TITLE:
        contact["title"] = random.choice(_TITLE)
    return contact
