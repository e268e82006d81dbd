"""The report as one page of HTML, with charts, that needs no network."""
