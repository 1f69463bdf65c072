"""One build's events in this process: its log is read once and shared by all who follow it.

`feeds` is what the rest of web uses, `feed` one attempt's, `lines` where its log comes from, `events` how they are
written, `ring` what holds them.

Source: ../shared/design.md, *Following is cheap*.
"""
