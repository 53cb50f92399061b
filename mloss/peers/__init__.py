"""At home in other merging toolkits; each module here needs the toolkit it names."""
