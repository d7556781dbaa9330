enum UpstreamRoom {}
