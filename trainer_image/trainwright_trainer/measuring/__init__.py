"""What detections are worth: matches, errors, comparisons and verdicts, in arrays; no model is run here."""
