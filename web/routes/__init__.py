"""What a visitor may ask for: blueprints, specs as they come over the wire, and pages."""
