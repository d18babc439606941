"""The main job, for real: a run is trained, sealed, published, fetched and opened, and each step is shown.

scenario    the story, from the stack to the verdict
secrets     keys and accounts, as a platform team would hand them out
view        what is shown while the run goes on
table       a run as `kubectl get` prints it
detections  the opened model at work on images it never saw
"""
