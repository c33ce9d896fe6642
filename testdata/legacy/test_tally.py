"""The tests of the extension module; it is found by PYTHONPATH."""

import unittest

import _tally


class Total(unittest.TestCase):
    def test_numbers(self):
        for n in range(5):
            self.assertEqual(_tally.total(list(range(n))), n * (n - 1) // 2)

    def test_no_list(self):
        with self.assertRaises(TypeError):
            _tally.total("abc")


if __name__ == "__main__":
    unittest.main()
