"""A whole Trainwright on one machine: cluster, node, S3 server, resource API; for demos and tests."""
