//! What the shop's catalogue is made of. Brands and models are invented.

/// One category with what its products are called and cost.
pub struct Category {
    pub name: &'static str,
    /// In the singular, for descriptions.
    pub noun: &'static str,
    pub models: &'static [&'static str],
    /// Least and greatest price in euros.
    pub price: (f64, f64),
    /// What a description may praise.
    pub strengths: &'static [&'static str],
}

pub const BRANDS: [&str; 12] = [
    "Auralis", "Borealys", "Corvina", "Duneo", "Elmwick", "Fjordtec", "Halden", "Iskra", "Lumora", "Nordvik",
    "Orbita", "Tessaro",
];

pub const EDITIONS: [&str; 8] = ["", "", "", " Lite", " Plus", " Pro", " Max", " SE"];

pub const ADJECTIVES: [&str; 12] = [
    "light",
    "sturdy",
    "quiet",
    "compact",
    "elegant",
    "fast",
    "reliable",
    "slim",
    "versatile",
    "repairable",
    "affordable",
    "well-made",
];

pub const COLOURS: [&str; 7] = ["black", "white", "graphite", "blue", "sand", "green", "red"];

pub const COUNTRIES: [&str; 8] = ["DE", "FR", "IT", "ES", "NL", "PL", "SE", "AT"];

pub const CATEGORIES: [Category; 8] = [
    Category {
        name: "smartphones",
        noun: "smartphone",
        models: &["Pilot", "Sill", "Ember", "Vela", "Quill"],
        price: (149.0, 1299.0),
        strengths: &["two-day battery", "bright display", "sharp camera", "fast charging"],
    },
    Category {
        name: "laptops",
        noun: "laptop",
        models: &["Scriva", "Atelier", "Meridian", "Folio"],
        price: (399.0, 2499.0),
        strengths: &["all-day battery", "matt display", "full-size keyboard", "silent cooling"],
    },
    Category {
        name: "tablets",
        noun: "tablet",
        models: &["Slate", "Canvas", "Atlas"],
        price: (129.0, 1099.0),
        strengths: &["pen support", "loud speakers", "thin frame", "long battery life"],
    },
    Category {
        name: "headphones",
        noun: "pair of headphones",
        models: &["Hush", "Drift", "Echo", "Canto", "Mezzo"],
        price: (29.0, 449.0),
        strengths: &["noise cancelling", "soft ear pads", "clear calls", "balanced sound"],
    },
    Category {
        name: "cameras",
        noun: "camera",
        models: &["Iris", "Aperta", "Lumen"],
        price: (249.0, 2999.0),
        strengths: &["fast autofocus", "weather sealing", "steady video", "wide dynamic range"],
    },
    Category {
        name: "smartwatches",
        noun: "smartwatch",
        models: &["Tempo", "Pulse", "Orbit"],
        price: (79.0, 699.0),
        strengths: &["week-long battery", "sleep tracking", "built-in maps", "sapphire glass"],
    },
    Category {
        name: "monitors",
        noun: "monitor",
        models: &["Vista", "Panora", "Clarity"],
        price: (119.0, 1499.0),
        strengths: &["true colours", "height adjustment", "a single cable", "high refresh rate"],
    },
    Category {
        name: "speakers",
        noun: "speaker",
        models: &["Cove", "Resona", "Timbre", "Plaza"],
        price: (39.0, 899.0),
        strengths: &["deep bass", "room correction", "waterproof case", "stereo pairing"],
    },
];
