"""Predictors: trained methods applied to new scans and images."""
