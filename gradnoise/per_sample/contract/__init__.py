"""What every engine gives."""
