"""Hostile inputs for every public function, command and file format; `python -m robustness` tries them."""
