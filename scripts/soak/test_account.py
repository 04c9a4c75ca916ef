"""What is lost, out of order or twice is found."""

import tempfile
import unittest
from pathlib import Path

from .account import acknowledged, settle

ACKS = {"A": {0, 1, 2}, "B": {0}}
EVERYTHING = [("", "A-0"), ("", "B-0"), ("", "A-1"), ("", "A-2")]


class Settled(unittest.TestCase):
    def test_everything_in_order_is_sound(self):
        account = settle(ACKS, EVERYTHING)
        self.assertTrue(account.is_sound())
        self.assertEqual((account.acknowledged, account.delivered, account.copies), (4, 4, 0))

    def test_what_is_missing_is_lost_and_named(self):
        account = settle(ACKS, EVERYTHING[:-1])
        self.assertFalse(account.is_sound())
        self.assertEqual((account.lost, account.examples), (1, ["A-2 is missing"]))

    def test_an_earlier_record_behind_a_later_one_is_out_of_order(self):
        account = settle(ACKS, [("", "A-0"), ("", "B-0"), ("", "A-2"), ("", "A-1")])
        self.assertEqual((account.lost, account.out_of_order, account.is_sound()), (0, 1, False))

    def test_order_holds_in_each_channel_by_itself(self):
        account = settle(ACKS, [("V", "A-0"), ("V", "A-2"), ("errors", "A-1"), ("V", "B-0")])
        self.assertTrue(account.is_sound())

    def test_copies_and_what_was_not_acknowledged_and_foreign_ids_are_sound(self):
        more = [("", "A-1"), ("", "A-3"), ("", "7f4b1c1e-6a0e-4d3b-9a53-0d5f9b8f2a11")]
        account = settle(ACKS, EVERYTHING + more)
        self.assertTrue(account.is_sound())
        self.assertEqual((account.delivered, account.copies), (5, 1))

    def test_without_one_ack_nothing_is_proved(self):
        self.assertFalse(settle({}, []).is_sound())

    def test_a_torn_last_line_is_no_ack(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "acks"
            path.write_text("A-0\nA-1\nA-")
            self.assertEqual(acknowledged([path]), {"A": {0, 1}})


if __name__ == "__main__":
    unittest.main()
