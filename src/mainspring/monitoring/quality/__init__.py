"""Quality of predictions by version, hour, segment and age; estimates before labels; metrics in SQL."""
