"""Annotations from the platform's stream into the data trees, so that nothing is lost, doubled or blocked.

    message -> events of names -> a name's history, settled -> files of the trees -> ledger -> offset

What a name's files are depends on its events alone, in the order of their dates: not on when they came, how
often, or which came first. So any part of the stream may be read again.
"""
