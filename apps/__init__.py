"""Stages of the campaign as plain functions: simulate, train, validate, publish."""
