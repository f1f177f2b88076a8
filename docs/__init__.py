"""What is made for readers out of the package: the picture of the network and the table of its variants."""
