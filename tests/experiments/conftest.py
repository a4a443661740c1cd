"""Experiments ask for every core before JAX starts; tests share the devices that the whole suite has."""

import pytest


@pytest.fixture(autouse=True)
def devices_of_the_suite(monkeypatch):
    monkeypatch.setattr("cliffs.sweeps.use_all_cores", lambda count=None: 1)
