"""What calls of models cost: read from requests and answers as they pass, in tokens and micro-USD."""
