"""Each line of the verdict can fail, the whole verdict with it, and the picture is drawn of either."""

import random
import unittest
from xml.dom import minidom

from . import chart, report, verdict
from .account import settle
from .gateway import SEGMENT_BYTES
from .misfortunes import Misfortune, Timeline, steps

MIB = 1 << 20


def made_up(leak: float = 0, descriptors: float = 0, slower: float = 0) -> tuple[list[dict], Timeline]:
    """Samples of ten minutes, with so many bytes, descriptors and milliseconds to an ack more each second."""
    noise = random.Random(5)
    timeline = Timeline(0, rounds=[0, 300], stopped=600)
    timeline.happened = [{"kind": "Kafka killed", "from": 320.0, "to": 350.0}]
    rows = []
    for at in range(2, 620, 2):
        row = dict.fromkeys(report.COLUMNS, 1.0) | {"seconds": float(at), "threads": 8}
        row["rss"] = 50 * MIB + leak * at + noise.gauss(0, MIB / 2)
        row["descriptors"] = 46 + int(descriptors * at)
        row["ack_p50"] = None if at == 400 else noise.choice([26, 26, 26, 51]) + slower * at
        rows.append(row)
    return rows, timeline


def judged(rows, timeline) -> dict[str, verdict.Check]:
    return {name: verdict.of_growth(name, line) for name, line in verdict.growths(rows, timeline).items()}


def of_rounds(left: list[float]) -> verdict.Check:
    """Of rounds of 300 s with a backlog in their middle, after which so many MiB are left."""
    timeline = Timeline(0, rounds=[300.0 * number for number in range(len(left))], stopped=300.0 * len(left))
    rows = []
    for at in range(5, 300 * len(left), 5):
        backlog = 40 if at % 300 < 250 else 0
        # What is written next comes on top for a moment.
        rows.append({"seconds": float(at), "disk": (left[at // 300] + backlog + at % 20 / 5) * MIB})
    return verdict.of_round_ends(verdict.round_ends(rows, timeline))


def status() -> dict:
    queue = {"refused": 0, "lost": 0}
    listener = dict.fromkeys(verdict.NEVER["listener"], 0)
    return {
        "queue": queue,
        "listener": listener,
        "destinations": {"home": {"refused": 0, "dropped": 0}},
        "reload_error": None,
    }


class Judged(unittest.TestCase):
    def test_what_stays_as_it_is_holds(self):
        self.assertTrue(all(check.holds for check in judged(*made_up()).values()))

    def test_four_hundred_bytes_a_record_are_found(self):
        checks = judged(*made_up(leak=400 * 220))
        self.assertEqual([name for name, check in checks.items() if not check.holds], ["rss"])

    def test_descriptors_that_stay_open_are_found(self):
        checks = judged(*made_up(descriptors=0.05))
        self.assertEqual([name for name, check in checks.items() if not check.holds], ["descriptors"])

    def test_acks_that_come_ever_later_are_found(self):
        checks = judged(*made_up(slower=0.2))
        self.assertEqual([name for name, check in checks.items() if not check.holds], ["ack_p50"])

    def test_acks_that_wait_for_all_of_the_commit_delay_at_last_are_none(self):
        rows, timeline = made_up()
        for row in rows:
            row["ack_p50"] = 26 if row["seconds"] < 450 else 51
        self.assertTrue(judged(rows, timeline)["ack_p50"].holds)

    def test_disk_that_each_outage_leaves_a_little_of_is_found(self):
        held = of_rounds([1, 4, 2, 5, 3, 4])
        self.assertTrue(held.holds, held.found)
        self.assertFalse(of_rounds([1, 4, 5, 9, 10, 14]).holds)

    def test_two_rounds_are_enough_to_find_disk_that_is_kept(self):
        self.assertTrue(of_rounds([1, 8]).holds)
        self.assertFalse(of_rounds([1, 10]).holds)
        self.assertTrue(of_rounds([99]).holds)

    def test_a_lost_record_fails(self):
        self.assertFalse(verdict.of_account("Kafka", settle({"A": {0, 1}}, [("", "A-0")])).holds)

    def test_disk_that_is_kept_fails(self):
        self.assertTrue(verdict.of_disk(MIB, MIB + 2 * SEGMENT_BYTES, 99 * MIB).holds)
        self.assertFalse(verdict.of_disk(MIB, MIB + 3 * SEGMENT_BYTES, 99 * MIB).holds)

    def test_a_vehicle_that_had_to_connect_again_fails(self):
        tally = {"connections": 16, "vehicles": 16, "resent": 0, "acked": 950, "refused": 0}
        self.assertTrue(verdict.of_connections(tally, 1_000).holds)
        for worse in ({"connections": 17}, {"resent": 1}, {"refused": 1}, {"acked": 800}):
            self.assertFalse(verdict.of_connections(tally | worse, 1_000).holds)

    def test_a_live_feed_that_stands_still_or_turns_back_fails(self):
        self.assertTrue(verdict.of_live_feed(1_000, 0, 1_000).holds)
        self.assertFalse(verdict.of_live_feed(1, 0, 1_000).holds)
        self.assertFalse(verdict.of_live_feed(1_000, 1, 1_000).holds)

    def test_what_stays_open_when_the_vehicles_are_gone_fails(self):
        before = {"descriptors": 40, "threads": 9}
        self.assertTrue(verdict.of_idle(before, before).holds)
        self.assertFalse(verdict.of_idle(before, before | {"threads": 19}).holds)

    def test_what_the_gateway_counts_or_logs_fails(self):
        self.assertTrue(verdict.of_counters(status(), []).holds)
        self.assertFalse(verdict.of_counters(status(), ["ERROR lost"]).holds)
        worse = status()
        worse["destinations"]["home"]["dropped"] = 3
        self.assertEqual(verdict.of_counters(worse, []).found, "home dropped: 3")

    def test_one_failed_line_fails_the_verdict(self):
        checks = [verdict.Check("a", True, ""), verdict.Check("b", False, "")]
        self.assertTrue(verdict.words(checks[:1]).endswith("nothing lost, nothing grows"))
        self.assertTrue(verdict.words(checks).endswith("FAILED"))


class Planned(unittest.TestCase):
    def test_each_round_has_everything_and_ends_come_behind_their_beginnings(self):
        def nothing():
            pass

        plan = [Misfortune("a", 0.1, nothing, 0.5, nothing), Misfortune("b", 0.3, nothing)]
        planned = [(number, begins, one.kind) for _, number, begins, one in steps(plan, 5)]
        one_round = [(True, "a"), (True, "b"), (False, "a")]
        self.assertEqual(planned, [(number, *step) for number in (0, 1) for step in one_round])


class Drawn(unittest.TestCase):
    def test_the_picture_is_well_formed_and_says_what_happened(self):
        rows, timeline = made_up(leak=100_000)
        lines = verdict.growths(rows, timeline)
        checks = [verdict.of_growth(name, line) for name, line in lines.items()]
        picture = chart.draw(
            {
                "version": "waystation <0>",
                "settings": {"minutes": 10, "vehicles": 20, "rate": 10},
                "warm_up": verdict.warm_up(timeline),
                "stopped": timeline.stopped,
                "checks": [vars(check) for check in checks],
                "growth": {name: line.as_dict() for name, line in lines.items()},
                "timeline": timeline.happened,
                "samples": rows,
            }
        )
        words = [node.firstChild.data for node in minidom.parseString(picture).getElementsByTagName("text")]
        self.assertIn("FAILED: RSS", words)
        self.assertIn("Kafka killed", words)


if __name__ == "__main__":
    unittest.main()
