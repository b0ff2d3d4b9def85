"""What a Cloud TPU slice needs beyond `lm`: compile for one that is not there, plan, rehearse."""
