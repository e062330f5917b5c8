"""Learning from several sources, few of whose images are labelled, for a domain never seen."""
