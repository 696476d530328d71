// Pays for a sign-up or sign-in with a little work, told as it goes.
import { api } from "./api.ts";
import type { ProofNews, ProofTask } from "./proof.worker.ts";
import proofWorkerUrl from "./proof.worker.ts?worker&url";
import { trustedScript } from "./trusted.ts";
import type { Proof } from "./types.ts";

export interface Progress {
  tried: number;
  /** How many attempts it takes on average. */
  expected: number;
}

export async function solve(purpose: "register" | "login", name: string, onProgress: (progress: Progress) => void): Promise<Proof | null> {
  const { challenge, salt, difficulty, signature } = await api.challenge(purpose, name);
  if (difficulty === 0) return null;
  const expected = 2 ** difficulty;
  onProgress({ tried: 0, expected });
  const worker = new Worker(trustedScript(proofWorkerUrl), { type: "module" });
  try {
    const number = await new Promise<number>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<ProofNews>) => {
        if ("found" in data) resolve(data.found);
        else onProgress({ tried: data.tried, expected });
      };
      worker.onerror = (event) => reject(new Error(event.message || "the proof of work could not be started"));
      worker.postMessage({ salt, difficulty } satisfies ProofTask);
    });
    return { challenge, number, signature };
  } finally {
    worker.terminate();
  }
}
