"""The model held against what is known and what can be worked out by hand. `scripts/scale.py --self-test` runs it."""

import json
import math
import random
import tempfile
import unittest
from pathlib import Path

from . import dedup, fleet, herd, inputs, pace, stored, tables, wire


class Stored(unittest.TestCase):
    def test_a_frame_is_as_long_as_the_stored_form_says(self):
        # 12 before the message; then number, VIN, type, transaction id, time, version and payload, each behind its tag.
        self.assertEqual(stored.frame(), 12 + (1 + 5) + (2 + 17) + (2 + 1) + (2 + 36) + (1 + 8) + (2 + 5) + (3 + 600))
        self.assertEqual([stored.varint(value) for value in (0, 127, 128, 16_383, 16_384)], [1, 1, 2, 2, 3])

    def test_rows_share_a_page_and_larger_ones_take_a_power_of_two(self):
        # (4096 - 4) / (12 + 564) is 7: what the pages of a real segment with 564-byte frames hold.
        self.assertEqual(stored.row(564), 4096 / 7)
        self.assertEqual(stored.row(4096 - 16), 4096)
        self.assertEqual(stored.row(4096 - 15), 8192)
        self.assertEqual(stored.row(3 * 4096), 4 * 4096)
        self.assertEqual(stored.row(64_500), 16 * 4096)

    def test_rows_fill_their_pages(self):
        # 93 frames of 697 bytes fill 64 KiB; of 32, 23 fill 16 KiB and 9 fill 8.
        self.assertEqual(stored.rows_of(1_000, 697)[:2], [93 * 697] * 2)
        self.assertEqual(stored.rows_of(32, 697), [23 * 697, 9 * 697])
        self.assertEqual(stored.commit(32, 697), (16 << 10) + (8 << 10) + 2 * 32)
        self.assertLess(stored.commit(1_000, 697), 1_000 * 697 * 1.03)

    def test_small_commits_go_into_a_segment_together(self):
        # One of 697 bytes has a block of its own, and 1,023 blocks are there beside the journal's first; six have two.
        self.assertEqual(stored.together(1, 697), 1_023)
        self.assertEqual(stored.together(6, 697), 6 * 511)
        self.assertEqual(stored.together(100, 697), 100)
        self.assertLess(stored.per_record(1), 697 * 1.03)

    def test_company_waits_for_the_delay_or_for_enough_while_few_come(self):
        self.assertAlmostEqual(stored.commit_size(10), 1.5)
        self.assertAlmostEqual(stored.commit_size(400), 21)
        self.assertAlmostEqual(stored.commit_size(2_000), 2_000 * inputs.FSYNC)
        self.assertAlmostEqual(stored.commit_size(80_000), 320)


class Wire(unittest.TestCase):
    def test_a_record_is_as_long_as_kafkas_format_says(self):
        # Lengths are zigzag varints: one byte to 63, two to 8,191.
        headers = [(3, 17), (10, 13), (9, 1), (4, 36), (6, 1), (7, 1), (21, 5), (6, 43)]
        body = 1 + 2 + 1 + 1 + 17 + 2 + 600 + 1 + sum(2 + name + value for name, value in headers)
        self.assertEqual(wire.record(), 2 + body)

    def test_two_mebibytes_hold_fewer_records_than_the_window(self):
        self.assertEqual(wire.window(), math.ceil((2 << 20) / (600 + 36 + 1_024)))
        self.assertLessEqual(wire.window(100), 2_048)


class Fleet(unittest.TestCase):
    def test_partitions_are_crc32_of_the_key(self):
        # The check value of CRC-32, and of the empty string.
        self.assertEqual(fleet.partition("123456789", 2**32), 0xCBF43926)
        self.assertEqual(fleet.partition("", 7), 0)
        self.assertEqual(fleet.partition("123456789", 10), 0xCBF43926 % 10)

    def test_vins_are_distinct_and_as_long_as_vins(self):
        self.assertEqual({len(fleet.vin(serial)) for serial in range(1_000)}, {17})
        self.assertEqual(len({fleet.vin(serial) for serial in range(100_000)}), 100_000)

    def test_a_few_draws_meet_as_many_kinds_as_by_hand(self):
        self.assertEqual(fleet.distinct(6, 0), 0)
        self.assertAlmostEqual(fleet.distinct(2, 2), 1.5)

    def test_skew_of_one_partition_is_none(self):
        self.assertEqual(fleet.skew(100, 1), (1.0, 0))

    def test_one_vehicle_with_a_long_linger_sends_one_request_in_a_linger(self):
        # Ten a second, collected for a second from the first on: one request in 1.1 s or so, of eleven records.
        each = fleet.requests(1, 10.0, 10, linger=1.0, delay=0.0, seconds=2_000)
        self.assertAlmostEqual(each, 1 / 11, delta=0.01)

    def test_without_any_wait_a_record_is_a_request(self):
        self.assertGreater(fleet.requests(10, 0.01, 1_000, linger=0.0, delay=0.0, seconds=50_000), 0.99)


class Pace(unittest.TestCase):
    def test_a_limit_keeps_half_a_second_in_flight(self):
        self.assertEqual([pace.in_flight(limit) for limit in (None, 20, 1, 10**9)], [1_264, 10, 1, 1_264])
        # Ten in flight, each for 1.1 s.
        self.assertAlmostEqual(pace.throughput(20, 1.0), 10 / 1.1)
        self.assertEqual(pace.throughput(20), 20)


class Herd(unittest.TestCase):
    def test_waits_stay_within_their_steps(self):
        times = list(herd.gateway_tries(random.Random(1), 600))
        waits = [after - before for before, after in zip([0.0, *times], times)]
        for wait, step in zip(waits, [0.5, 1, 2, 4, 8, 16, 32, 60, 60]):
            self.assertTrue(step / 2 <= wait <= step)
        times = list(herd.librdkafka_refused_by_default(random.Random(1), 600))
        waits = [after - before for before, after in zip(times, times[1:])]
        self.assertTrue(all(7.4999 <= wait <= 10.0001 for wait in waits[8:]))
        # Two thirds of the jittered waits of 7.5 to 15 s are cut to the same 10 s.
        self.assertAlmostEqual(sum(wait > 9.999999 for wait in waits[8:]) / len(waits[8:]), 2 / 3, delta=0.15)

    def test_syns_into_silence_come_at_the_kernels_times(self):
        self.assertEqual(list(herd.librdkafka_silent_by_default(random.Random(1), 46)), [0, 1, 3, 7, 15, 30, 31, 33, 37, 45, 60])

    def test_a_broker_connects_as_many_as_its_rate_allows(self):
        half, _, all_connected = herd.handshakes(1_000, 100.0, bounded=False, costly=True)
        self.assertAlmostEqual(half, 5, delta=0.5)
        self.assertAlmostEqual(all_connected, 10, delta=0.5)

    def test_a_line_longer_than_the_patience_of_those_in_it_never_ends(self):
        self.assertIsNone(herd.handshakes(1_000, 10.0, bounded=False, costly=True)[2])
        patient = herd.handshakes(1_000, 10.0, bounded=False, costly=True, timeout=120.0)[2]
        self.assertAlmostEqual(patient, 100, delta=2)

    def test_a_backlog_drains_in_the_time_of_the_closed_form(self):
        # Four hours at 10/s, 30/s away: 144,000 records at 20/s more than come are two hours.
        self.assertEqual(herd.drain_time(14_400, 10, 30), 7_200)
        self.assertEqual(herd.drain_time(60, 10, 10), math.inf)
        _, _, last = herd.drain(20, 14_400, 10.0, cluster=10_000.0, uplink=1_500.0, limit=30)
        self.assertAlmostEqual(last, 7_200, delta=0.02 * 7_200)

    def test_an_overloaded_cluster_is_shared_evenly(self):
        self.assertEqual(herd._even([1.0, 5.0, 9.0], 9.0), 4.0)
        self.assertEqual(herd._even([1.0, 2.0], 9.0), 2.0)
        _, _, last = herd.drain(20, 3_600, 10.0, cluster=600.0, uplink=1_500.0)
        # Each has 30/s: half an hour, and the minute in which they come back.
        self.assertAlmostEqual(last, 1_800, delta=90)


class Dedup(unittest.TestCase):
    def test_a_log_has_everything_in_order_but_for_replays(self):
        logs, ids = dedup.stream(queues=3, records=300)
        self.assertEqual({entry for log in logs for entry in log}, ids)
        for log in logs:
            highest = {}
            for queue, number in log:
                if (queue, number) not in highest.setdefault(queue, {}):
                    # What comes for the first time is above all that came before: the invariant that marks rest on.
                    self.assertGreater(number, max((seen for _, seen in highest[queue]), default=-1))
                    highest[queue][queue, number] = True

    def test_a_mark_for_each_queue_and_partition_gives_each_record_once(self):
        for seed in range(10):
            logs, ids = dedup.stream(queues=5, records=300, failures=6, seed=seed)
            for kind in (dedup.MarkPerPartition, dedup.MarkAndLook):
                twice, lost, _, read = dedup.consume(kind, logs, ids, seed)
                self.assertEqual((twice, lost), (0, 0))
                self.assertGreater(read, len(ids))

    def test_one_mark_for_a_queue_loses_what_another_partition_is_behind_with(self):
        # Numbers 0 and 2 in one partition, 1 and 3 in another that is read first.
        ids = {(0, number) for number in range(4)}
        logs = [[(0, 0), (0, 2)], [(0, 1), (0, 3)]]
        lost = [dedup.consume(dedup.MarkPerQueue, logs, ids, seed)[1] for seed in range(20)]
        self.assertGreater(max(lost), 0)

    def test_what_comes_late_is_lost_without_a_look_and_kept_with_one(self):
        for seed in range(10):
            logs, ids = dedup.stream(queues=5, records=300, late=True, seed=seed)
            self.assertGreater(dedup.consume(dedup.MarkPerPartition, logs, ids, seed)[1], 0)
            self.assertEqual(dedup.consume(dedup.MarkAndLook, logs, ids, seed)[:2], (0, 0))


class Inputs(unittest.TestCase):
    def test_measured_figures_replace_the_constants(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gateway.json"
            constants = inputs.constants()
            self.assertEqual(inputs.load(path), (constants, []))
            rows = [{"id": "backlog.idle", "unit": "MB", "measured": {"median": 8.5}}, {"figure": "x"}]
            path.write_text(json.dumps(rows))
            box, found = inputs.load(path)
            self.assertEqual((box["idle"], box["thousand"], found), (8.5, constants["thousand"], ["idle"]))

    def test_numbers_are_written_for_people(self):
        written = [tables.number(value) for value in (7, 0.0471, 1.5, 99.96, 1234.5, 0)]
        self.assertEqual(written, ["7", "0.0471", "1.5", "100", "1,234", "0"])
        times = [tables.time(value) for value in (5.25, 150, 7_200, 604_800)]
        self.assertEqual(times, ["5.2 s", "2.5 min", "2 h", "7 days"])
