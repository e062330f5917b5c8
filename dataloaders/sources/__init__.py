"""Slices of several domains, few of which are labelled, to segment a domain never seen."""
