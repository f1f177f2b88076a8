"""Reports from the results files: pages, headlines, the front page's tables and the plot."""
