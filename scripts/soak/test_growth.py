"""What grows is found, what is only noise is not."""

import math
import random
import unittest

from .growth import DAY, growth

MIB = 1 << 20


def run(seconds, value, every=2):
    return [(at, value(at)) for at in range(0, seconds, every)]


class Growing(unittest.TestCase):
    def test_a_flat_line_does_not_grow(self):
        found = growth(run(300, lambda _: 30 * MIB), 4 * MIB)
        self.assertFalse(found.grows())
        self.assertEqual((found.rise, found.error), (0, 0))

    def test_a_leak_of_a_kilobyte_a_record_grows_in_three_minutes(self):
        noise = random.Random(1)
        found = growth(run(180, lambda at: 30 * MIB + at * 200 * 1024 + noise.gauss(0, MIB)), 4 * MIB)
        self.assertTrue(found.grows())
        self.assertAlmostEqual(found.per_day / (200 * 1024 * DAY), 1, delta=0.1)

    def test_ten_megabytes_an_hour_grow_in_an_hour_under_noise(self):
        noise = random.Random(2)
        found = growth(run(3240, lambda at: 30 * MIB + at / 360 * MIB + noise.gauss(0, MIB), 5), 4 * MIB)
        self.assertTrue(found.grows())

    def test_outages_that_come_and_go_do_not_grow(self):
        noise = random.Random(3)

        def outage(at):
            return 12 * MIB if at % 270 < 60 else 0

        found = growth(run(3240, lambda at: 30 * MIB + outage(at) + noise.gauss(0, MIB), 5), 4 * MIB)
        self.assertFalse(found.grows())

    def test_a_wave_does_not_grow(self):
        found = growth(run(600, lambda at: 30 * MIB + 2 * MIB * math.sin(at / 20)), 4 * MIB)
        self.assertFalse(found.grows())

    def test_a_descriptor_a_minute_grows_and_one_more_does_not(self):
        self.assertTrue(growth(run(600, lambda at: 60 + at // 60), 4).grows())
        self.assertFalse(growth(run(600, lambda at: 60 + (at > 300)), 4).grows())

    def test_what_rises_a_lot_grows_however_much_it_shakes(self):
        noise = random.Random(4)
        found = growth(run(600, lambda at: at / 600 * 20 * MIB + noise.choice([0, 60 * MIB])), 4 * MIB)
        self.assertTrue(found.grows())

    def test_what_shrinks_does_not_grow(self):
        self.assertFalse(growth(run(600, lambda at: 90 * MIB - at * 1024), 4 * MIB).grows())


if __name__ == "__main__":
    unittest.main()
