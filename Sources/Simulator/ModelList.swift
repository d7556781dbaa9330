import Contract
import JSONCodec

/// The response of `GET /v1/models`: a few examples, because every model name is accepted.
enum ModelList {
    static let body: [UInt8] = {
        let models = ["sim-n100-g20", "sim-n1000-g20-f200", "qwen-plus"].map { name -> JSON in
            ["id": .string(name), "object": "model", "created": 1_700_000_000, "owned_by": "sluice-simulator"]
        }
        return (["object": "list", "data": .array(models)] as JSON).bytes
    }()
}
