"""report.html: data, scripts and styles in one file."""
