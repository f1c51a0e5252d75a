"""What kinds of reasoning the kept texts hold: rules that tag them, and two raters that the rules are held to."""
