"""How pictures look, one way for all of them: names' colours, themes, ticks, labels, and reading what is drawn."""
