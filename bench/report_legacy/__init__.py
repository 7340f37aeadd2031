"""Boards: entries (one an evaluate cell) → rows → Markdown, CSV and the entries themselves, a set a data set.

A board is a pure function of its entries: no date, no clock, no order of arrival. ``publish`` writes boards
and ``drift`` says where the files of a folder differ from what the entries give.
"""
