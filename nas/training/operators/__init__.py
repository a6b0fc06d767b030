"""What operators start from and how they fare, measured on networks that run."""
