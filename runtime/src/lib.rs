//! One rank: loads a model, serves the OpenAI API.
