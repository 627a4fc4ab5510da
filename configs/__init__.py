"""Machines (one Parsl module each), sites, campaigns and edge devices."""
