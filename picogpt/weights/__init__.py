"""Weights: where they come from, how they are downloaded, and the format in which they are stored.

find.py          from the name of a model to its directory, and to the source that reads it
source.py        what a source of weights must do; a new format is one more
openai.py        OpenAI's files; bundle.py and crc32c.py read the TensorFlow checkpoint among them,
                     variables.py checks that it has what the model needs
huggingface.py   Hugging Face's files: tensorfile.py reads safetensors, state_dict.py knows the names in them, and
                     tokenizer_json.py reads the tokenizer
hub.py           the same by their names on the Hugging Face Hub
download.py      downloads that resume; transport.py talks to the server, partial.py keeps what has arrived
convert.py       from a source to the store
export.py        the way out: to_huggingface.py, to_tensorflow.py and to_gguf.py write for other programs;
                     with_tensorflow.py compares the converted weights with what TensorFlow reads
extras.py        packages that only some uses need
store.py         the converted weights, one mapped file for each model; shapes.py knows their names and shapes
"""
