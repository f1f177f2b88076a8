"""One file a command of ``timm-assemble``: its arguments and what it calls, the parts imported when it runs."""
