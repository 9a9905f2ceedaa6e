"""Whole screens: the dashboard, a job, signing in, help, and questions."""
