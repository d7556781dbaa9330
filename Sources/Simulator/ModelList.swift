import Contract
import JSONCodec

/// What `GET /v1/models` answers: a sample, as every name is taken.
enum ModelList {
    static let body: [UInt8] = {
        let models = ["sim-n100-g20", "sim-n1000-g20-f200", "qwen-plus"].map { name -> JSON in
            ["id": .string(name), "object": "model", "created": 1_700_000_000, "owned_by": "sluice-simulator"]
        }
        return (["object": "list", "data": .array(models)] as JSON).bytes
    }()
}
