"""Packages, which setup.cfg cannot describe: a wheel has the configs inside `td`, a checkout next to it."""

from setuptools import find_packages, setup

CONFIGS = {"td.configs": "configs", "td.configs.tables": "configs/tables"}

setup(packages=[*find_packages(include=["td", "td.*"]), *CONFIGS], package_dir=CONFIGS)
