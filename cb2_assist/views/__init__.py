"""Site to what the model sees: geometry views, EM views and contact features. No torch here."""
