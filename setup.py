"""What setup.cfg cannot say: a wheel has the experiment cards inside of `td`, a checkout has them beside it."""

from setuptools import find_packages, setup

CARDS = {"td.configs": "configs", "td.configs.tables": "configs/tables"}

setup(packages=[*find_packages(include=["td", "td.*"]), *CARDS], package_dir=CARDS)
