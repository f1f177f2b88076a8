"""Speed measured as ratios side by side, one file a question; see README.md. No part of the installed package."""
