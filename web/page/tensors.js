// Reads the bytes of a .safetensors file: https://github.com/huggingface/safetensors

const ARRAYS = { F32: Float32Array, U32: Uint32Array };

/** Tensors by name, as typed arrays of their own, and what the metadata `about` says about them. */
export function readTensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const data = bytes.subarray(8 + length);
  const tensors = {};
  const { __metadata__: { about }, ...arrays } = header;
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(arrays)) {
    tensors[name] = new ARRAYS[dtype](data.slice(start, end).buffer);
  }
  return { tensors, about: JSON.parse(about) };
}
