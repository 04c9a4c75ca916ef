"""The account: every acknowledged record against everything that arrived.

A record is known by its transaction id, `{VIN}-{number}`, and each vehicle numbers its own. Order is that of the first
arrivals: a record that arrives again, later, is a copy, which delivery at least once allows.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

EXAMPLES = 5


@dataclass
class Account:
    """How one destination did."""

    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    out_of_order: int = 0
    copies: int = 0
    examples: list[str] = field(default_factory=list)

    def is_sound(self) -> bool:
        return self.acknowledged > 0 and self.lost == 0 and self.out_of_order == 0

    def as_dict(self) -> dict:
        return asdict(self)


def acknowledged(files: Iterable[Path]) -> dict[str, set[int]]:
    """The numbers that each vehicle had acknowledged. What a kill cut off of a file's last line is no ack."""
    numbers: dict[str, set[int]] = {}
    for path in files:
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            vin, number = line.rsplit("-", 1)
            numbers.setdefault(vin, set()).add(int(number))
    return numbers


def settle(acks: dict[str, set[int]], arrivals: Iterable[tuple[str, str]]) -> Account:
    """`arrivals`: the channel in which order holds (a topic, or nothing) and the transaction id, in their order."""
    account = Account(acknowledged=sum(map(len, acks.values())))
    seen: dict[str, set[int]] = {vin: set() for vin in acks}
    highest: dict[tuple[str, str], int] = {}
    for channel, txid in arrivals:
        vin, _, number = txid.rpartition("-")
        # Records of the gateway's own about connections have other ids.
        if vin not in seen:
            continue
        number = int(number)
        if number in seen[vin]:
            account.copies += 1
            continue
        seen[vin].add(number)
        account.delivered += 1
        last = highest.get((vin, channel), -1)
        if number < last:
            account.out_of_order += 1
            account.examples.append(f"{txid} after {last}")
        highest[vin, channel] = max(last, number)
    for vin, numbers in acks.items():
        missing = sorted(numbers - seen[vin])
        account.lost += len(missing)
        account.examples += [f"{vin}-{number} is missing" for number in missing[:EXAMPLES]]
    del account.examples[EXAMPLES:]
    return account
