"""Pages, headlines, the front page's tables and the plot, from the results."""
