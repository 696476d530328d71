// Looks for the number of a proof of work, off the main thread.
import { leadingZeroBits, sha256 } from "./sha256.ts";

export interface ProofTask {
  salt: string;
  difficulty: number;
}

export type ProofNews = { tried: number } | { found: number };

const BATCH = 20_000;

self.onmessage = ({ data }: MessageEvent<ProofTask>) => {
  const encoder = new TextEncoder();
  for (let number = 0; ; number++) {
    if (leadingZeroBits(sha256(encoder.encode(data.salt + number))) >= data.difficulty) {
      self.postMessage({ found: number } satisfies ProofNews);
      return;
    }
    if (number % BATCH === BATCH - 1) self.postMessage({ tried: number + 1 } satisfies ProofNews);
  }
};
