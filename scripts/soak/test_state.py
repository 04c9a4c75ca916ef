"""An earlier soak's folder makes way for the next one's, and nobody else's does."""

import tempfile
import unittest
from pathlib import Path

from . import state


class Made(unittest.TestCase):
    def test_a_soaks_folder_is_made_anew(self):
        with tempfile.TemporaryDirectory() as out:
            folder = state.made(Path(out))
            (folder / "logs").mkdir()
            self.assertEqual([one.name for one in state.made(Path(out)).iterdir()], [state.MARK])

    def test_anothers_folder_stays(self):
        with tempfile.TemporaryDirectory() as out:
            thesis = Path(out) / "state" / "thesis"
            thesis.mkdir(parents=True)
            with self.assertRaises(FileExistsError):
                state.made(Path(out))
            self.assertTrue(thesis.is_dir())


if __name__ == "__main__":
    unittest.main()
